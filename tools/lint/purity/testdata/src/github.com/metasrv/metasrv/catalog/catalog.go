package catalog

import (
	"maps"
	"slices"
)

func bad(m map[string]int, c chan int, x float64) float64 {
	go func() {}() // want "no goroutines"
	c <- 1         // want "no channels"
	select {}      // want "no select"
	for range m {  // want "the order of a map is random"
	}
	//purity:allow
	for range m { // want "the order of a map is random"
	}
	return x * 2 // want "no arithmetic on floats"
}

func good(m map[string]int, x, y float64) bool {
	for range slices.Sorted(maps.Keys(m)) {
	}
	//purity:allow a sum is the same in every order
	for range m {
	}
	return x < y && 2*3 == 6
}
