package promampauth_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"go.yaml.in/yaml/v2"
)

// alertFile is what a rule file may hold, as far as alerts.yml goes.
type alertFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func readAlerts(t *testing.T) (file alertFile) {
	t.Helper()
	text, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) == 0 {
		t.Fatal("there are no rules")
	}
	return file
}

var (
	word     = regexp.MustCompile(`[a-zA-Z_][a-zA-Z0-9_]*`)
	duration = regexp.MustCompile(`\[\d+[mh]\]`)
	selector = regexp.MustCompile(`(ampauth_\w+)(?:\{(\w+)="(\w+)"\})?`)
	without  = regexp.MustCompile(`without \(([^)]*)\)`)
	language = []string{"increase", "rate", "sum", "without", "unless"}
)

// The parser of Prometheus would bring a hundred modules, and a version of Go, to the users
// of this one. What it would not find is whether the names exist; promtool does the rest.
func TestAlertsAskForWhatIsExported(t *testing.T) {
	file := readAlerts(t)
	inWorld(t, func(cfg *ampauth.Config) { cfg.Lifetime = time.Hour }, func(w *world) {
		w.do(w.client.Client, ampAssets)
		metrics := exported(w)
		for _, rule := range file.Groups[0].Rules {
			named := 0
			for _, match := range selector.FindAllStringSubmatch(rule.Expr, -1) {
				named++
				name, label, wanted := match[1], match[2], match[3]
				family := strings.TrimSuffix(name, "_count")
				metric, found := metrics[family]
				if !found || (family != name) != (metric.kind == "histogram") {
					w.Errorf("%s: there is no %s", rule.Alert, name)
				}
				if label == "" {
					continue
				}
				if !slices.ContainsFunc(seriesNames(w, family), func(labels string) bool {
					return slices.Contains(strings.Fields(labels), label+"="+wanted)
				}) {
					w.Errorf("%s: %s has no %s=%q", rule.Alert, family, label, wanted)
				}
			}
			if named == 0 {
				w.Errorf("%s asks for no metric", rule.Alert)
			}
			labels := []string{"operation", "result", "error_type", "reason"}
			for _, match := range without.FindAllStringSubmatch(rule.Expr, -1) {
				for label := range strings.SplitSeq(match[1], ", ") {
					if !slices.Contains(labels, label) {
						w.Errorf("%s leaves out the label %s, which there is not", rule.Alert, label)
					}
				}
			}
			rest := without.ReplaceAllString(selector.ReplaceAllString(duration.ReplaceAllString(rule.Expr, ""), ""), "without")
			for _, other := range word.FindAllString(rest, -1) {
				if !slices.Contains(language, other) {
					w.Errorf("%s: %s is neither a metric nor a word of the language", rule.Alert, other)
				}
			}
		}
	})
}

func seriesNames(w *world, family string) (all []string) {
	for labels := range w.series(family, true) {
		all = append(all, labels)
	}
	return all
}

func TestAlertsSayWhatIsWrongAndWhatToDo(t *testing.T) {
	var names []string
	for _, rule := range readAlerts(t).Groups[0].Rules {
		names = append(names, rule.Alert)
		if !strings.HasPrefix(rule.Alert, "Ampauth") || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s says %v", rule.Alert, rule.Annotations)
		}
		if severity := rule.Labels["severity"]; severity != "page" && severity != "ticket" || len(rule.Labels) != 1 {
			t.Errorf("%s has the labels %v", rule.Alert, rule.Labels)
		}
		if rule.For != "" {
			if _, err := time.ParseDuration(rule.For); err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
		}
	}
	if slices.Sort(names); len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("two alerts share a name: %v", names)
	}
	tests, err := os.ReadFile("alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.Contains(string(tests), name) {
			t.Errorf("%s is not tested in alerts_test.yml", name)
		}
	}
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		if said, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, said)
		}
	}
}
