// Package procedure has changes in several steps: the move of a replica, the handing over of a region's leadership, the
// draining of a node. Each step is one command that moves the record on and changes the region, both or neither, so a new
// metasrv leader finds every procedure at the step where it was.
//
// Plan decides on the next step: a pure function of the record and of what is seen of the region. The package sends
// nothing, waits for nothing and chooses no nodes; the server drives.
package procedure
