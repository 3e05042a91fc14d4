"""Where the work runs: this process, or Ray Data on one machine or many. The work itself is elsewhere."""
