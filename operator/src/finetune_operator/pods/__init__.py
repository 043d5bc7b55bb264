"""Jobs and Pods: how they are built, read, judged and tried again."""
