package policies

import (
	"context"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/knftables"
)

const (
	table  = "helix-policies"
	bridge = "pods0"
	// A deployment changes many pods at once: one transaction holds them all.
	settle = 30 * time.Millisecond
)

type enforcer struct {
	nft        knftables.Interface
	policies   func(labels.Selector) ([]*networking.NetworkPolicy, error)
	pods       func(labels.Selector) ([]*core.Pod, error)
	namespaces func(labels.Selector) ([]*core.Namespace, error)
	changed    chan struct{}
	held       Rules
}

// Run holds the cluster's NetworkPolicies until the process ends.
func Run(arguments []string) error {
	flags := flag.NewFlagSet("network-policies", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "credentials")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	nft, err := knftables.New(knftables.IPv4Family, table)
	if err != nil {
		return err
	}
	return enforce(context.Background(), client, nft)
}

func enforce(ctx context.Context, client kubernetes.Interface, nft knftables.Interface) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	policies, pods := factory.Networking().V1().NetworkPolicies(), factory.Core().V1().Pods()
	namespaces := factory.Core().V1().Namespaces()
	e := &enforcer{
		nft: nft, changed: make(chan struct{}, 1),
		policies: policies.Lister().List, pods: pods.Lister().List, namespaces: namespaces.Lister().List,
	}
	for _, informer := range []cache.SharedIndexInformer{policies.Informer(), pods.Informer(), namespaces.Informer()} {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { e.wake() },
			UpdateFunc: func(any, any) { e.wake() },
			DeleteFunc: func(any) { e.wake() },
		})
		if err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for first := true; ; first = false {
		if err := e.sync(ctx, first); err != nil {
			return err
		}
		<-e.changed
		time.Sleep(settle)
	}
}

func (e *enforcer) wake() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

func (e *enforcer) sync(ctx context.Context, first bool) error {
	policies, err := e.policies(labels.Everything())
	if err != nil {
		return err
	}
	pods, err := e.pods(labels.Everything())
	if err != nil {
		return err
	}
	namespaces, err := e.namespaces(labels.Everything())
	if err != nil {
		return err
	}
	rules, err := Compile(policies, pods, namespaces)
	if err != nil {
		// One policy that cannot be held is no reason to let the others go: what was held stays.
		klog.ErrorS(err, "the rules stay as they were")
		return nil
	}
	if !first && reflect.DeepEqual(rules, e.held) {
		return nil
	}
	if err := e.nft.Run(ctx, transaction(e.nft, rules)); err != nil {
		return fmt.Errorf("nftables takes no rules: %w", err)
	}
	e.held = rules
	klog.InfoS("rules held", "pods", len(rules.Known), "ingress", len(rules.Ingress), "egress", len(rules.Egress))
	return nil
}

// transaction replaces the whole table at once: no packet sees half of the rules.
func transaction(nft knftables.Interface, rules Rules) *knftables.Transaction {
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("NetworkPolicies, held by Helix")})
	tx.Add(&knftables.Set{Name: "known", Type: "ipv4_addr"})
	for _, address := range slices.Compact(slices.Clone(rules.Known)) {
		tx.Add(&knftables.Element{Set: "known", Key: []string{address}})
	}
	direct(tx, "ingress", rules.Ingress)
	direct(tx, "egress", rules.Egress)
	for name, hook := range map[string]knftables.BaseChainHook{
		"forward": knftables.ForwardHook, "input": knftables.InputHook,
	} {
		tx.Add(&knftables.Chain{
			Name: name, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(hook),
			Priority: knftables.PtrTo(knftables.FilterPriority),
		})
		tx.Add(&knftables.Rule{Chain: name, Rule: "ct state established,related accept"})
		// A pod whose address the API server has not told yet might be one that a policy isolates.
		tx.Add(&knftables.Rule{Chain: name, Rule: "iifname " + bridge + " ip saddr != @known counter drop"})
		tx.Add(&knftables.Rule{Chain: name, Rule: "ip saddr vmap @egress"})
	}
	tx.Add(&knftables.Rule{Chain: "forward", Rule: "ip daddr vmap @ingress"})
	return tx
}

func direct(tx *knftables.Transaction, kind string, isolated map[string][]string) {
	tx.Add(&knftables.Map{Name: kind, Type: "ipv4_addr : verdict"})
	for address, matches := range isolated {
		chain := kind + "-" + strings.ReplaceAll(address, ".", "-")
		tx.Add(&knftables.Chain{Name: chain})
		for _, match := range matches {
			// Back to the hook: what one pod may send, the other must still be allowed to receive.
			tx.Add(&knftables.Rule{Chain: chain, Rule: match + " return"})
		}
		tx.Add(&knftables.Rule{Chain: chain, Rule: "counter drop"})
		tx.Add(&knftables.Element{Map: kind, Key: []string{address}, Value: []string{"jump " + chain}})
	}
}
