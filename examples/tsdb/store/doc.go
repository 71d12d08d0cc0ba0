// Package store keeps replicas of regions in a folder: each in its own SQLite file, beside a file that names
// the folder's owner. It knows nothing of networks and of metasrv.
//
// A replica's file holds, beside the rows, who it is, the place of its last write in the region's order of
// writes, the recent write ids and, on a region leader, the last writes themselves for followers that lag. All
// of it changes in the transaction that stores the rows, so a file is always at one place of that order.
//
// Files are made by Create only. A file that is damaged, or isn't what its name says, is listed with what is
// wrong and otherwise left as it is.
package store
