"""The sandbox of Python graders: a server in a container of its own, and the processes in which their code runs.

A process has no way to the network, to other processes and to files but its libraries and a folder of its own: Landlock
and seccomp see to it, which it sets up itself before it reads any code, and which nothing can take off again. Only
Python's standard library is imported here, except by the client.
"""
