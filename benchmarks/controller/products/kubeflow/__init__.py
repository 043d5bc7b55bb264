"""The rival: Kubeflow Trainer and JobSet as released, built from their Go modules, installed by their own manifests."""
