// Package deploy tests the manifests in this directory: they hold only fields that exist, and relay
// accepts the settings that they give to it. It is a module of its own, so that nobody who uses
// distmsg gets what it depends on.
package deploy

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"path/filepath"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// kinds are the types of all objects that our manifests may hold.
var kinds = map[string]func() any{
	"v1 ConfigMap":                            func() any { return new(core.ConfigMap) },
	"v1 Namespace":                            func() any { return new(core.Namespace) },
	"v1 Secret":                               func() any { return new(core.Secret) },
	"v1 Service":                              func() any { return new(core.Service) },
	"apps/v1 Deployment":                      func() any { return new(apps.Deployment) },
	"apps/v1 StatefulSet":                     func() any { return new(apps.StatefulSet) },
	"policy/v1 PodDisruptionBudget":           func() any { return new(policy.PodDisruptionBudget) },
	"networking.k8s.io/v1 NetworkPolicy":      func() any { return new(networking.NetworkPolicy) },
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return new(monitoring.ServiceMonitor) },
	"monitoring.coreos.com/v1 PrometheusRule": func() any { return new(monitoring.PrometheusRule) },
}

// decode returns the objects in a file of one or several YAML documents. It is an error if a field
// does not exist, or stands there twice.
func decode(text []byte) (objects []any, err error) {
	for i, document := range bytes.Split(append([]byte("\n"), text...), []byte("\n---")) {
		var kind meta.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return nil, fmt.Errorf("document %d: %w", i, err)
		}
		if kind == (meta.TypeMeta{}) {
			continue // only comments
		}
		create := kinds[kind.APIVersion+" "+kind.Kind]
		if create == nil {
			return nil, fmt.Errorf("document %d: unknown kind %s %s", i, kind.APIVersion, kind.Kind)
		}
		object := create()
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			return nil, fmt.Errorf("document %d, %s: %w", i, kind.Kind, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// kustomize returns the objects of a kustomization.
func kustomize(t *testing.T, dir string) []any {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decode(text)
	if err != nil {
		t.Fatalf("%s: %v\n%s", dir, err, text)
	}
	return objects
}

// helm returns the objects of our chart with some values.
func helm(values string) ([]any, error) {
	log.SetOutput(io.Discard) // Helm mentions each symbolic link
	chart, err := loader.LoadDir("helm/distmsg")
	if err != nil {
		return nil, err
	}
	given, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: "chat", Namespace: "prod", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, given, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	var objects []any
	for name, text := range rendered {
		if filepath.Ext(name) != ".yaml" {
			continue
		}
		some, err := decode([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", name, err, text)
		}
		objects = append(objects, some...)
	}
	return objects, nil
}

// everything are values that turn on all that the chart has.
const everything = `
replicas: 5
image: {repository: registry.example.org/distmsg, tag: 1.0.0, pullSecrets: [{name: registry}]}
config:
  registry: rediss://redis.example.org:6379/0
  memory-budget: 1GiB
  admin-host: [nodes.example.org]
clusterSecret: {existingSecret: ours}
registryPassword: {existingSecret: redis}
tls: {existingSecret: relay-tls, clientCA: true}
tokens: {existingSecret: relay-tokens}
service: {type: LoadBalancer, annotations: {example.org/a: b}}
networkPolicy: {clients: {namespaceSelector: {matchLabels: {team: chat}}}}
podDisruptionBudget: {maxUnavailable: 20%}
nodeSelector: {disk: none}
tolerations: [{key: relay, operator: Exists}]
affinity: {podAntiAffinity: {}}
podAnnotations: {example.org/c: d}
extraEnv: [{name: GOMEMLIMIT, value: 1GiB}]
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboard: {enabled: true}
`

// deployments returns the objects of each way to deploy.
func deployments(t *testing.T) map[string][]any {
	t.Helper()
	all := map[string][]any{
		"kubernetes/base":    kustomize(t, "kubernetes/base"),
		"kubernetes/example": kustomize(t, "kubernetes/example"),
	}
	for name, values := range map[string]string{"helm with defaults": "{}", "helm with everything": everything} {
		objects, err := helm(values)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = objects
	}
	return all
}

// Each way to deploy has all parts, and they fit together.
func TestParts(t *testing.T) {
	for name, objects := range deployments(t) {
		var parts []string
		for _, o := range objects {
			parts = append(parts, strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1."))
		}
		want := []string{"StatefulSet", "Service", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy"}
		switch name {
		case "kubernetes/example":
			want = append(want, "Namespace", "ServiceMonitor", "Deployment")
		case "helm with defaults":
			want = append(want, "Secret")
		case "helm with everything":
			want = append(want, "ServiceMonitor", "PrometheusRule")
		}
		for _, part := range want {
			if !strings.Contains(strings.Join(parts, " "), part) {
				t.Errorf("%s has no %s, only %v", name, part, parts)
			}
		}
		testPods(t, name, objects)
	}
}

// testPods checks what the pods of the nodes, and what names them, agree on.
func testPods(t *testing.T, name string, objects []any) {
	nodes := one[*apps.StatefulSet](t, name, objects)
	labels := nodes.Spec.Template.Labels
	selects := func(what string, selector map[string]string) {
		for key, value := range selector {
			if labels[key] != value {
				t.Errorf("%s: %s selects %s=%s, and pods have %v", name, what, key, value, labels)
			}
		}
		if len(selector) == 0 {
			t.Errorf("%s: %s selects all pods", name, what)
		}
	}
	selects("the StatefulSet", nodes.Spec.Selector.MatchLabels)
	selects("the PodDisruptionBudget", one[*policy.PodDisruptionBudget](t, name, objects).Spec.Selector.MatchLabels)
	selects("the NetworkPolicy", one[*networking.NetworkPolicy](t, name, objects).Spec.PodSelector.MatchLabels)
	headless := false
	for _, o := range objects {
		if service, ok := o.(*core.Service); ok && service.Name == nodes.Spec.ServiceName {
			selects("the Service "+service.Name, service.Spec.Selector)
			headless = service.Spec.ClusterIP == "None" && service.Spec.PublishNotReadyAddresses
		}
	}
	if !headless {
		t.Errorf("%s: %q is no headless Service that names pods before they are ready", name, nodes.Spec.ServiceName)
	}
	relay := nodes.Spec.Template.Spec.Containers[0]
	if relay.StartupProbe == nil || relay.ReadinessProbe == nil || relay.LivenessProbe == nil || relay.Lifecycle == nil || relay.Lifecycle.PreStop == nil {
		t.Errorf("%s: a probe or preStop is missing", name)
	}
	mounted := make(map[string]bool)
	for _, volume := range nodes.Spec.Template.Spec.Volumes {
		mounted[volume.Name] = true
	}
	for _, mount := range relay.VolumeMounts {
		if !mounted[mount.Name] {
			t.Errorf("%s: no volume %q", name, mount.Name)
		}
	}
}

// one returns the only object of a type.
func one[T any](t *testing.T, name string, objects []any) (found T) {
	t.Helper()
	n := 0
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found, n = o, n+1
		}
	}
	if n != 1 {
		t.Fatalf("%s has %d %T, want one", name, n, found)
	}
	return found
}

// The chart refuses values that it does not know.
func TestValues(t *testing.T) {
	for values, want := range map[string]string{
		"replicsa: 3":            "replicsa",
		"replicas: three":        "replicas",
		"config: {registry: zk}": "registry",
		"tls: {secret: x}":       "secret",
	} {
		if _, err := helm(values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error about %s", values, err, want)
		}
	}
}

// The known-bad cases of decode.
func TestDecodeIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: Service\nspec: {port: 1}":                                        `unknown field "port"`,
		"apiVersion: v1\nkind: Service\n---\napiVersion: v1\nkind: Service\nspec: {}\nspec: {}": "already set",
		"apiVersion: v2\nkind: Service":                                                         "unknown kind v2 Service",
	} {
		if _, err := decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if objects, err := decode([]byte("# nothing\n---\napiVersion: v1\nkind: Service\n")); err != nil || len(objects) != 1 {
		t.Errorf("%v, %v", objects, err)
	}
}
