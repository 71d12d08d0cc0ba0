package heartbeat

func apply() {
	go func() {}() // want "no goroutines"
}
