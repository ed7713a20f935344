"""The demo: a chain takes real purchases, loses its primary region, goes on, comes home, and proves it."""
