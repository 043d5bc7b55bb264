//go:build tools

// Package cluster pins what the local cluster is built from, in ONE module: `k8s.io/kubernetes` decides the versions
// of k8s.io/*, and etcd, CoreDNS, helm, kind and kwok are compiled against the same, so that each dependency is
// compiled once for all of them.
package cluster

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "helm.sh/helm/v4/cmd/helm"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
	_ "sigs.k8s.io/kind"
	_ "sigs.k8s.io/kwok/cmd/kwok"
)
