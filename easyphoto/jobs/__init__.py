"""The queue: jobs written down on the disk before anybody is told that they were taken, and run one after another."""
