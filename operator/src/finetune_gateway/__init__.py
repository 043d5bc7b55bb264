"""The gateway of a ModelDeployment: one address in front of its servers, which bounds what reaches them.

The path of a request: its route is on a list (routes.py), its body is read within limits (bodies.py), it gets a place
at the least busy server or waits for one (policy.py decides, pool.py keeps the places), and the answer is passed on
byte by byte (proxy.py). servers.py follows which servers there are.
"""
