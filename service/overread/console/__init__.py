"""What people see of the service: its state in words, on the command line and on a page."""
