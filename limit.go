package metasrv

// MaxRequestBytes is the largest request that a member takes, encoded. What is to be written may be smaller, see
// ErrInvalidArgument.
const MaxRequestBytes = 16 << 20
