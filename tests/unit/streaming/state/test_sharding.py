"""Every user belongs to exactly one shard, and one shard is the primary."""

from streaming.state.sharding import Shard


def test_each_user_belongs_to_one_shard() -> None:
    shards = [Shard(worker, 3) for worker in range(3)]
    users = [f"user {k} ü" for k in range(3000)]
    counts = [sum(shard.owns(user) for user in users) for shard in shards]
    assert sum(counts) == len(users)
    assert all(sum(shard.owns(user) for shard in shards) == 1 for user in users)
    assert min(counts) > 800
    assert [shard.is_primary for shard in shards] == [True, False, False]
    assert all(Shard().owns(user) for user in users)
