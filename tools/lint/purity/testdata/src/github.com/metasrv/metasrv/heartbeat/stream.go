package heartbeat

func stream() {
	go func() {}()
}
