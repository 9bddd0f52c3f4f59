"""What is watched and by whom: paths, users, limits."""
