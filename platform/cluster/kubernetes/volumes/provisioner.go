// Package volumes makes a folder of the node a volume when a claim asks for one, and removes it
// when the claim is gone.
package volumes

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// Name is what a StorageClass names as its provisioner.
const Name = "helix.example/local"

const (
	// The scheduler writes the node here once a pod uses the claim (WaitForFirstConsumer).
	selectedNode = "volume.kubernetes.io/selected-node"
	madeBy       = "pv.kubernetes.io/provisioned-by"
	// What could not be done is tried again after this.
	again = 2 * time.Second
)

type provisioner struct {
	client  kubernetes.Interface
	root    string
	claims  func(labels.Selector) ([]*core.PersistentVolumeClaim, error)
	volumes func(labels.Selector) ([]*core.PersistentVolume, error)
	class   func(string) (*storage.StorageClass, error)
	changed chan struct{}
}

// Run serves claims until the process ends.
func Run(arguments []string) error {
	flags := flag.NewFlagSet("volume-provisioner", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "credentials")
	root := flags.String("root", "", "the folder that holds the volumes")
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
	return serve(context.Background(), client, *root)
}

func serve(ctx context.Context, client kubernetes.Interface, root string) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	claims, volumes := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	classes := factory.Storage().V1().StorageClasses()
	p := &provisioner{
		client: client, root: filepath.Clean(root), changed: make(chan struct{}, 1),
		claims: claims.Lister().List, volumes: volumes.Lister().List, class: classes.Lister().Get,
	}
	for _, informer := range []cache.SharedIndexInformer{claims.Informer(), volumes.Informer(), classes.Informer()} {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { p.wake() },
			UpdateFunc: func(any, any) { p.wake() },
			DeleteFunc: func(any) { p.wake() },
		})
		if err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for {
		if err := p.sync(ctx); err != nil {
			klog.ErrorS(err, "tried again", "after", again)
			time.Sleep(again)
			continue
		}
		<-p.changed
	}
}

func (p *provisioner) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *provisioner) sync(ctx context.Context) error {
	claims, err := p.claims(labels.Everything())
	if err != nil {
		return err
	}
	for _, claim := range claims {
		if err := p.provide(ctx, claim); err != nil {
			return fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
	}
	volumes, err := p.volumes(labels.Everything())
	if err != nil {
		return err
	}
	for _, volume := range volumes {
		if err := p.remove(ctx, volume); err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
	}
	return nil
}

// provide makes the folder and the volume of a claim that waits for them.
func (p *provisioner) provide(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	node := claim.Annotations[selectedNode]
	if claim.Spec.VolumeName != "" || claim.Spec.StorageClassName == nil || node == "" || claim.DeletionTimestamp != nil {
		return nil
	}
	class, err := p.class(*claim.Spec.StorageClassName)
	if errors.IsNotFound(err) || (err == nil && class.Provisioner != Name) {
		return nil
	}
	if err != nil {
		return err
	}
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(p.root, name)
	if err := os.Mkdir(path, 0o777); err != nil && !os.IsExist(err) {
		return err
	}
	// A pod's user is not known here; what keeps others out is that only pods with this claim get the folder.
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, volumeOf(claim, class, name, path, node), meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		klog.InfoS("volume made", "claim", claim.Namespace+"/"+claim.Name, "volume", name)
	}
	return err
}

func volumeOf(
	claim *core.PersistentVolumeClaim, class *storage.StorageClass, name, path, node string,
) *core.PersistentVolume {
	here := core.NodeSelectorRequirement{
		Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{node},
	}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{madeBy: Name}},
		Spec: core.PersistentVolumeSpec{
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      claim.Spec.Resources.Requests,
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: path}},
			ClaimRef: &core.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{
				NodeSelectorTerms: []core.NodeSelectorTerm{{MatchExpressions: []core.NodeSelectorRequirement{here}}},
			}},
		},
	}
}

// remove deletes a volume whose claim is gone, folder first.
func (p *provisioner) remove(ctx context.Context, volume *core.PersistentVolume) error {
	released := volume.Status.Phase == core.VolumeReleased || volume.Status.Phase == core.VolumeFailed
	keep := volume.Spec.PersistentVolumeReclaimPolicy != core.PersistentVolumeReclaimDelete
	if volume.Annotations[madeBy] != Name || !released || keep || volume.DeletionTimestamp != nil {
		return nil
	}
	if volume.Spec.Local == nil || filepath.Dir(filepath.Clean(volume.Spec.Local.Path)) != p.root {
		return fmt.Errorf("its folder is not one of this provisioner")
	}
	if err := os.RemoveAll(volume.Spec.Local.Path); err != nil {
		return err
	}
	err := p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{})
	if errors.IsNotFound(err) {
		return nil
	}
	return err
}
