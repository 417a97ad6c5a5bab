"""The micro-batch that is open: records of the learner log that are not learned yet."""

from streaming.records import Activity, Title, UserErasure


class OpenBatch:
    """Records in the order of the log, each with its log time."""

    def __init__(self) -> None:
        self.records: list[tuple[Title | Activity | UserErasure, int]] = []
        self.opened_at = 0  # log time of the first record, ms
        self.new_events = 0
        self.erased_users: set[str] = set()  # whose erasure is in the batch

    def __len__(self) -> int:
        return len(self.records)

    def add(self, record: Title | Activity | UserErasure, now: int) -> None:
        """Add the log's next record; `now` is its log time in ms."""
        if not self.records:
            self.opened_at = now
        self.records.append((record, now))
        if isinstance(record, Activity):
            self.new_events += len(record.new)
        elif isinstance(record, UserErasure):
            self.erased_users.add(record.user)
