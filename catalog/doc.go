// Package catalog owns what exists: catalogs, schemas and tables, by name and by id, and the state in which
// a table is. It knows nothing of regions; router moves a table from state to state inside its own commands,
// by the functions Reserve, Publish, Retire and Remove.
//
// A new cluster is empty. The metasrv leader adds metasrv.DefaultCatalog and metasrv.DefaultSchema by ordinary
// commands with if_not_exists when it takes over, so nothing here treats them specially.
//
// DESIGN.md beside this file has the keys and the rules.
package catalog
