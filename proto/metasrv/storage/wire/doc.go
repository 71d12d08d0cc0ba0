// Package wire writes and reads the fields of protobuf messages by hand: the same bytes as protobuf's, at a tenth of the
// price. It is for the few messages that every write carries or that have one message a replica, and knows none of them.
// What it reads, it takes only as it writes it: each field at most once, in the order of their numbers, which are below 16.
// Everything else, such as an unknown field, its callers leave to protobuf.
package wire
