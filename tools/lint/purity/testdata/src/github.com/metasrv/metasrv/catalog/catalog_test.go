package catalog

import (
	"maps"
	"slices"
)

func badInTest(m map[string]int, c chan int, x float64) float64 {
	go func() {}()
	c <- 1
	select {}
	for range m {
	}
	//purity:allow
	for range m {
	}
	return x * 2
}

func goodInTest(m map[string]int, x, y float64) bool {
	for range slices.Sorted(maps.Keys(m)) {
	}
	//purity:allow a sum is the same in every order
	for range m {
	}
	return x < y && 2*3 == 6
}
