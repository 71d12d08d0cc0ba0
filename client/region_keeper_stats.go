package client

// KeeperStats says how a RegionKeeper stands, for metrics.
type KeeperStats struct {
	// Led is how many regions the node leads, Covered how many of them it has a lease for at present.
	Led, Covered int
	// Lapsed is how many have had a lease in their epoch that has ended: they take no writes until the next one.
	Lapsed int
	// Lapses counts the leases that ended before the next one was granted, since the keeper was made. It only rises. A
	// lease that was never followed by another one is not in it.
	Lapses uint64
}

// Stats returns how the keeper stands. It looks at every region.
func (k *RegionKeeper) Stats() KeeperStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := KeeperStats{Lapses: k.lapses}
	now := int64(k.now())
	for _, value := range k.regions.Range {
		s.Led++
		switch until := value.(*leadership).until.Load(); {
		case now < until:
			s.Covered++
		case until != 0:
			s.Lapsed++
		}
	}
	return s
}
