"""The project's tests are for the runs that tests of the plugin start."""

collect_ignore = ["project"]
