"""Every limit of the wire, named, with the reason for its size."""

from typing import Final

# ids and keys
MAX_ID_LENGTH: Final = 128  # three ids and a prefix fit into one subject and one file name
MAX_KEY_LENGTH: Final = 1_024  # a key is an index entry in Postgres (limit about 2,700 bytes)
MAX_NAME_LENGTH: Final = 128  # custom event and label names
MAX_LABELS: Final = 32
MAX_LABEL_LENGTH: Final = 256
MAX_REASON_LENGTH: Final = 2_048  # error texts and reasons kept in the log

# schedules
MAX_SCHEDULE_NAME_LENGTH: Final = 98  # with `-manual-` and a time in microseconds behind it, it is still a legal id
MAX_CRON_LENGTH: Final = 256  # an expression that lists every minute of an hour still fits
MIN_EVERY_SECONDS: Final = 1  # an instance's id has its due time in whole seconds
MAX_EVERY_SECONDS: Final = 10 * 366 * 86_400  # ten years
MAX_CATCH_UP: Final = 1_000  # missed starts that a schedule makes up for; what was missed beyond them is skipped
SCHEDULE_RECENT: Final = 20  # instances that a schedule remembers, and asks whether they have ended

# frames
MAX_FRAME_RECORDS: Final = 512  # one fsync pays for all of them; more gains nothing (measured)
MAX_FRAME_BYTES: Final = 512 * 1024  # a frame stays well below the server's payload limit
MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024  # the server's `max_payload`
MAX_FORK_BYTES: Final = MAX_PAYLOAD_BYTES - 64 * 1024  # the record that makes a fork is one message, as all are
MAX_RECORD_VALUE_BYTES: Final = 4 * 1024 * 1024  # of what cannot go aside: the data of a log line
MAX_NESTING: Final = 128  # JSON deeper than this is refused before anything recurses over it
MAX_REJECTED_BYTES: Final = 4_096  # of a rejected payload, kept for whoever looks into it

# values: a state, an input, a result
MAX_STATE_BYTES: Final = 64 * 1024 * 1024  # who makes or reads one holds all of it in memory, several times over
INLINE_BYTES: Final = 64 * 1024  # what is longer goes aside: it would be copied with every frame, batch and history
PART_BYTES: Final = 1024 * 1024  # in which it is sent and kept, so that nobody between holds more of it

# the engine's batches
MAX_BATCH_RECORDS: Final = 1_000
MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
MAX_OUTSTANDING_BYTES: Final = 32 * 1024 * 1024  # read ahead of the fold, two batches

# the answer to a claim
MAX_INLINE_HISTORY_BYTES: Final = 1024 * 1024  # above this, memos come in pages of the same size

# an instance
MAX_PENDING_SIGNALS: Final = 10_000
MAX_PENDING_SIGNAL_BYTES: Final = 8 * 1024 * 1024  # they are part of the instance's state, which is written as a whole
DEFAULT_RESTARTS: Final = 5  # lost attempts in a row without a new key before an instance fails
MAX_CHILD_DEPTH: Final = 64  # children of children; a workflow that calls itself without end stops here
MAX_RESTART_DELAY_SECONDS: Final = 60

# an image: all of this is kept in the log of each instance that it runs
MAX_IMAGE_REFERENCE_LENGTH: Final = 512
MAX_IMAGE_ENV: Final = 64
MAX_IMAGE_ENV_BYTES: Final = 16 * 1024  # names and values together
MAX_IMAGE_SECRETS: Final = 32
MIN_IMAGE_MEMORY_BYTES: Final = 6 * 1024 * 1024  # the least that Docker takes

# definitions
MAX_DEFINITION_BYTES: Final = 4 * 1024 * 1024  # half of a message; thousands of steps fit

# connections
MAX_CONNECTION_FIELDS: Final = 64
MAX_CONNECTION_BYTES: Final = 64 * 1024  # its fields as JSON; private keys and certificates have a few KiB
MAX_WORKFLOW_CONNECTIONS: Final = 32  # that one workflow names; the names are kept in the log of each instance
MAX_CONNECTIONS: Final = 1_000  # of a tenant

# time
LEASE_SECONDS: Final = 6  # listening seconds without a word from a worker
HEARTBEAT_SECONDS: Final = 2.0
HOSTED_LIST_EVERY: Final = 5  # every n-th heartbeat says what the worker hosts
OWNER_LEASE_SECONDS: Final = 5  # an engine's hold on a partition
CANCEL_GRACE_SECONDS: Final = 10  # from the request to cancel to the forced end of a claim
