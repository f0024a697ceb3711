"""The composition root of sesguardd: builds the parts, opens the sockets, drops rights."""
