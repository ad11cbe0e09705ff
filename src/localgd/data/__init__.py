"""From files to shards: load tables, split them over nodes, prepare them by rounds that send no row."""
