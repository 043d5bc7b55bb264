"""The local cluster; `python -m e2e.cluster --help` says what it can do.

    resolve.up()                  the cluster for the demo and the end-to-end tests: which one, resolve.py says
    resolve.down()                remove it, but for the cache
    binaries.binaries(["helm"])   the path of kubectl, helm, ..., which are downloaded or built first
    components.control_plane.control_plane()
                                  a control plane without nodes, one for each `with`, for integration tests

own.py puts the cluster together from components/ and registry.py. What is kept between runs lies below
cache.cache_dir(): `bin` (by version), `containerd` and `registry` (images), `logs` (of set-up steps); the running
cluster in `cluster`, with `kubeconfig` and the processes' `logs`. Removing that directory while no cluster is up makes
the next run a first one.
"""
