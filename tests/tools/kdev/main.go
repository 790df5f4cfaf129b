// kdev is a Kubernetes control plane in one program: etcd, kube-apiserver, kube-controller-manager and kubectl, and
// with the build tag `node` also what runs pods. Which of them runs is said by the name it is started by (a link), or
// by the first argument. One link instead of many saves most of the room and the time; the tests build it themselves,
// since no package index has the API server (tests/kubernetes/binaries.py).
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

var components = map[string]func(){
	"etcd":                    func() { etcdmain.Main(os.Args) },
	"kube-apiserver":          server(apiserver.NewAPIServerCommand),
	"kube-controller-manager": server(controllers.NewControllerManagerCommand),
	"kubectl":                 kubectl,
}

// server makes a component of a command. It is made when it runs: making one registers flags and metrics, which two
// of them would do twice.
func server(make func() *cobra.Command) func() {
	return func() { os.Exit(cli.Run(make())) }
}

func kubectl() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}

func main() {
	if run, ok := components[filepath.Base(os.Args[0])]; ok {
		run()
		return
	}
	if len(os.Args) > 1 {
		if run, ok := components[os.Args[1]]; ok {
			os.Args = os.Args[1:]
			run()
			return
		}
	}
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(os.Stderr, "usage: %s %s [flags]\n", os.Args[0], strings.Join(names, "|"))
	os.Exit(2)
}
