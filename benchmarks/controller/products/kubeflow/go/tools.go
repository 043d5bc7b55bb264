//go:build tools

// Package kubeflow pins the rival: Kubeflow Trainer, and JobSet, which it makes its Jobs by. Both are built as they are
// released, against the versions of Kubernetes' packages that they were released with.
package kubeflow

import (
	_ "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager"
	_ "sigs.k8s.io/jobset"
)
