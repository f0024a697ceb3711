"""What the benchmarks of the relay are made of: load, sink, peers, measuring, table."""
