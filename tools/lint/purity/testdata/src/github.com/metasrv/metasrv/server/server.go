package server

func serve(m map[string]int) {
	go func() {}()
	for range m {
	}
}
