"""The kernel side: the only place that imports bcc, opens /proc or knows a struct offset."""
