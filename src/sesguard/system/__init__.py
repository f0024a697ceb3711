"""Every direct use of the operating system: files, locks, processes, sockets' peers, privileges."""
