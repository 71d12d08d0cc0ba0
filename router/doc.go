// Package router owns the regions of tables: on which nodes their replicas are, who leads, and how a table's
// route is told to those who read and write. It gives birth to tables and buries them, and moves them between
// their states in package catalog by the same commands.
//
// It decides nothing about placement (the commands name the nodes) and sends nothing to datanodes: PlanAborts,
// Agree and ReplicasToDrop say what is to be done, the metasrv leader does it.
//
// DESIGN.md beside this file has the states of a table and who moves it.
package router
