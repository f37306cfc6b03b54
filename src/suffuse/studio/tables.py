"""The two tables: jobs, and the images they made. Times are seconds since 1970, UTC."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()
_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER

jobs = Table(
    "jobs",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=True),  # the order of arrival
    Column("id", String(32), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("client", String(255), nullable=False),
    Column("key", String(255)),  # idempotency key
    Column("priority", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("request", JSON, nullable=False),  # as `requests.pack` writes it
    Column("n", Integer, nullable=False),  # pictures to draw
    Column("film", Boolean, nullable=False),
    Column("explain", Boolean, nullable=False),
    Column("preview", Integer, nullable=False),
    Column("batch", String(64)),  # equal ones may run together; none = alone
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("attempts", Integer, nullable=False, default=0),
    Column("error", Text),
    UniqueConstraint("client", "key"),
    Index("jobs_by_state", "state", "client"),
)

images = Table(
    "images",
    metadata,
    Column("id", String(32), primary_key=True),  # sorts by age, so that paging survives deletions
    Column("job", String(32), ForeignKey("jobs.id"), nullable=False),
    Column("index", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("hash", String(64), nullable=False, index=True),
    Column("prompt", Text, nullable=False),
    Column("negative", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("sampler", Text),
    Column("steps", Integer),
    Column("guidance", Float),
    Column("created", Float, nullable=False),
    Column("request", JSON, nullable=False),  # as it is shown
    Column("infotext", Text, nullable=False),
    Column("film", String(64), index=True),  # the hash of its file
    Column("frames", Integer),
    Column("explanation", String(64), index=True),
    Column("words", Text, nullable=False),  # what searching looks in, case folded
    UniqueConstraint("job", "index"),  # nothing is delivered twice
)
