"""What the gateway and the server of OpenAI's API have in common: how much a client may take of them."""
