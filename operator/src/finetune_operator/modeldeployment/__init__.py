"""ModelDeployment: serving behind a gate."""
