"""How requests reach the application: connections, deadlines, proxies in front of it."""
