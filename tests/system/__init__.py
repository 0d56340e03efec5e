"""Real processes on real homes: started, asked over their socket, stopped and killed."""
