// Package policies holds NetworkPolicies: it compiles them into nftables rules on the node.
package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Rules are what the node holds, by pod address. A pod that is in a map is isolated in that
// direction: only what one of its matches names may pass. All matches are nftables expressions.
type Rules struct {
	Known   []string
	Ingress map[string][]string
	Egress  map[string][]string
}

type world struct {
	pods       []*core.Pod
	namespaces map[string]labels.Set
}

type direction struct{ address, kind string }

var (
	incoming = direction{"ip saddr", "ingress"}
	outgoing = direction{"ip daddr", "egress"}
)

// Compile is pure: policies, pods and namespaces in, rules out.
func Compile(policies []*networking.NetworkPolicy, pods []*core.Pod, namespaces []*core.Namespace) (Rules, error) {
	seen := world{namespaces: map[string]labels.Set{}}
	for _, namespace := range namespaces {
		seen.namespaces[namespace.Name] = namespace.Labels
	}
	rules := Rules{Ingress: map[string][]string{}, Egress: map[string][]string{}}
	for _, pod := range pods {
		if hasAddress(pod) {
			seen.pods = append(seen.pods, pod)
			rules.Known = append(rules.Known, pod.Status.PodIP)
		}
	}
	slices.Sort(rules.Known)
	for _, policy := range policies {
		if err := seen.add(&rules, policy); err != nil {
			return Rules{}, fmt.Errorf("NetworkPolicy %s/%s: %w", policy.Namespace, policy.Name, err)
		}
	}
	return rules, nil
}

func (w world) add(rules *Rules, policy *networking.NetworkPolicy) error {
	targets, err := w.selected(policy.Namespace, &policy.Spec.PodSelector, nil)
	if err != nil {
		return err
	}
	for _, target := range targets {
		address := target.Status.PodIP
		if slices.Contains(policy.Spec.PolicyTypes, networking.PolicyTypeIngress) {
			// A pod may always reach itself.
			rules.Ingress[address] = append(rules.Ingress[address], "ip saddr "+address)
			for _, rule := range policy.Spec.Ingress {
				matches, err := w.matches(policy.Namespace, rule.From, rule.Ports, incoming, target)
				if err != nil {
					return err
				}
				rules.Ingress[address] = append(rules.Ingress[address], matches...)
			}
		}
		if slices.Contains(policy.Spec.PolicyTypes, networking.PolicyTypeEgress) {
			rules.Egress[address] = append(rules.Egress[address], "ip daddr "+address)
			for _, rule := range policy.Spec.Egress {
				matches, err := w.matches(policy.Namespace, rule.To, rule.Ports, outgoing, nil)
				if err != nil {
					return err
				}
				rules.Egress[address] = append(rules.Egress[address], matches...)
			}
		}
	}
	return nil
}

// matches are the expressions of one rule: any of its peers on any of its ports.
func (w world) matches(
	namespace string, peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort, way direction,
	target *core.Pod,
) ([]string, error) {
	places, pods := []string{""}, w.pods
	if len(peers) > 0 {
		places, pods = nil, nil
		for _, peer := range peers {
			if peer.IPBlock != nil {
				place, err := block(peer.IPBlock, way)
				if err != nil {
					return nil, err
				}
				places = append(places, place)
				continue
			}
			found, err := w.selected(namespace, peer.PodSelector, peer.NamespaceSelector)
			if err != nil {
				return nil, err
			}
			pods = append(pods, found...)
		}
		if place := anyOf(pods, way); place != "" {
			places = append(places, place)
		}
	}
	if len(ports) == 0 {
		return notEmpty(places), nil
	}
	var found []string
	for _, port := range ports {
		if port.Port != nil && port.Port.Type == intstr.String {
			found = append(found, named(port, pods, places, way, target)...)
			continue
		}
		for _, place := range places {
			found = append(found, strings.TrimSpace(place+" "+numbered(port)))
		}
	}
	return found, nil
}

// named resolves a port's name: on the isolated pod for what comes in, on each peer for what goes out.
func named(
	port networking.NetworkPolicyPort, pods []*core.Pod, places []string, way direction, target *core.Pod,
) []string {
	var found []string
	if way == incoming {
		if number, ok := numberOf(target, port); ok {
			for _, place := range places {
				found = append(found, strings.TrimSpace(fmt.Sprintf("%s %s dport %d", place, protocol(port), number)))
			}
		}
		return found
	}
	for _, pod := range pods {
		if number, ok := numberOf(pod, port); ok {
			found = append(found, fmt.Sprintf("ip daddr %s %s dport %d", pod.Status.PodIP, protocol(port), number))
		}
	}
	return found
}

func numberOf(pod *core.Pod, port networking.NetworkPolicyPort) (int32, bool) {
	for _, container := range pod.Spec.Containers {
		for _, declared := range container.Ports {
			if declared.Name == port.Port.StrVal && strings.EqualFold(string(declared.Protocol), protocol(port)) {
				return declared.ContainerPort, true
			}
		}
	}
	return 0, false
}

func numbered(port networking.NetworkPolicyPort) string {
	switch {
	case port.Port == nil:
		return "meta l4proto " + protocol(port)
	case port.EndPort != nil:
		return fmt.Sprintf("%s dport %d-%d", protocol(port), port.Port.IntVal, *port.EndPort)
	}
	return fmt.Sprintf("%s dport %d", protocol(port), port.Port.IntVal)
}

func protocol(port networking.NetworkPolicyPort) string {
	if port.Protocol == nil {
		return "tcp"
	}
	return strings.ToLower(string(*port.Protocol))
}

func block(peer *networking.IPBlock, way direction) (string, error) {
	for _, text := range append([]string{peer.CIDR}, peer.Except...) {
		// The API server has checked them; rules are text, so nothing else may get in.
		if _, err := netip.ParsePrefix(text); err != nil {
			return "", err
		}
	}
	match := way.address + " " + peer.CIDR
	if len(peer.Except) > 0 {
		match += fmt.Sprintf(" %s != { %s }", way.address, strings.Join(peer.Except, ", "))
	}
	return match, nil
}

func anyOf(pods []*core.Pod, way direction) string {
	if len(pods) == 0 {
		return ""
	}
	var addresses []string
	for _, pod := range pods {
		addresses = append(addresses, pod.Status.PodIP)
	}
	slices.Sort(addresses)
	return fmt.Sprintf("%s { %s }", way.address, strings.Join(slices.Compact(addresses), ", "))
}

// selected are the pods that both selectors name; without a namespace selector, those of the policy's namespace.
func (w world) selected(namespace string, pods, namespaces *meta.LabelSelector) ([]*core.Pod, error) {
	ofPod, ofNamespace := labels.Everything(), labels.Selector(nil)
	var err error
	if pods != nil {
		if ofPod, err = meta.LabelSelectorAsSelector(pods); err != nil {
			return nil, err
		}
	}
	if namespaces != nil {
		if ofNamespace, err = meta.LabelSelectorAsSelector(namespaces); err != nil {
			return nil, err
		}
	}
	var found []*core.Pod
	for _, pod := range w.pods {
		inside := pod.Namespace == namespace
		if ofNamespace != nil {
			inside = ofNamespace.Matches(w.namespaces[pod.Namespace])
		}
		if inside && ofPod.Matches(labels.Set(pod.Labels)) {
			found = append(found, pod)
		}
	}
	return found, nil
}

// hasAddress tells whether a pod has an address of its own that it still uses.
func hasAddress(pod *core.Pod) bool {
	if pod.Spec.HostNetwork || pod.Status.Phase == core.PodSucceeded || pod.Status.Phase == core.PodFailed {
		return false
	}
	address, err := netip.ParseAddr(pod.Status.PodIP)
	return err == nil && address.Is4()
}

func notEmpty(places []string) []string {
	var found []string
	for _, place := range places {
		if place == "" {
			// No peer and no port: everything matches.
			place = "meta nfproto ipv4"
		}
		found = append(found, place)
	}
	return found
}
