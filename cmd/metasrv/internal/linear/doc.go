// Package linear judges what clients of a cluster saw: it collects their operations and says whether there is one order
// of them that explains every answer (linearizability, by porcupine), and whether the revisions in the answers keep
// what they promise. It knows neither the cluster nor how the operations were made.
package linear
