"""Refuses writes to Redis by a process that another one has replaced (`streaming/kafka/ownership.py`).

`FENCE` is the start of a script. It compares the fencing number of the writer with the highest one that Redis has seen
for the same worker. The script's last key is `list_client.owners_key`, and its last arguments are `fence_arguments`,
which it removes. Number 0 is not compared: a sole process has no number.
"""

from typing import Any, Final

from streaming.errors import OwnedElsewhereError
from streaming.kafka.ownership import Owner

REFUSED: Final = -1  # answer of a script
FENCE: Final = """
local number, worker = table.remove(ARGV), table.remove(ARGV)
local newest = tonumber(redis.call('HGET', KEYS[#KEYS], worker) or '0')
if tonumber(number) > 0 and newest > tonumber(number) then return -1 end
if newest < tonumber(number) then redis.call('HSET', KEYS[#KEYS], worker, number) end
"""


def fence_arguments(owner: Owner) -> list[str | int]:
    """The last arguments of a script."""
    return [owner.worker, owner.number]


def raise_if_refused(answer: Any) -> None:
    """Raises OwnedElsewhereError for the answer of a script that refused its writer."""
    if answer == REFUSED:
        raise OwnedElsewhereError("Redis has writes of a newer process of this worker: this process writes no more.")
