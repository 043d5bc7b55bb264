"""What the gateway of a ModelDeployment costs beside Envoy and Traefik."""
