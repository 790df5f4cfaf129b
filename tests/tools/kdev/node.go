//go:build node

package main

import (
	"context"

	"github.com/spf13/cobra"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// What a node needs beside the control plane.
func init() {
	components["kube-scheduler"] = server(func() *cobra.Command { return scheduler.NewSchedulerCommand() })
	components["kube-proxy"] = server(proxy.NewProxyCommand)
	components["kubelet"] = server(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) })
}
