package recipes_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/inspect"
	"github.com/keepcache/keepcache/recipes"
)

func open(dir string) *keepcache.DB {
	db, err := keepcache.Open(filepath.Join(dir, "app.cache"), nil)
	if err != nil {
		panic(err)
	}
	var v any
	for i := range 300 {
		_ = db.Set(fmt.Sprint(i), i, time.Hour)
		_, _ = db.Get(fmt.Sprint(i*2), &v)
	}
	_ = db.Bucket("quo\"te\\\n\xff").Set("k", 1, 0)
	return db
}

func tempCache() (*keepcache.DB, func()) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	db := open(dir)
	return db, func() { _, _ = db.Close(), os.RemoveAll(dir) }
}

func ExampleCollector() {
	db, done := tempCache()
	defer done()
	registry := prometheus.NewRegistry()
	registry.MustRegister(recipes.Collector{DB: db, Name: "sessions"})
	families, err := registry.Gather()
	fmt.Println(len(families), err)
	// Output: 9 <nil>
}

func ExampleObserve() {
	db, done := tempCache()
	defer done()
	reader := metric.NewManualReader() // or an exporter's own
	meter := metric.NewMeterProvider(metric.WithReader(reader)).Meter("github.com/keepcache/keepcache")
	registration, err := recipes.Observe(meter, db, "sessions")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer registration.Unregister()
	var all metricdata.ResourceMetrics
	fmt.Println(reader.Collect(context.Background(), &all), len(all.ScopeMetrics[0].Metrics))
	// Output: <nil> 5
}

// TestLint has the linter of Prometheus find nothing, in the handler's own text and in the collector's.
func TestLint(t *testing.T) {
	db := open(t.TempDir())
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	w := httptest.NewRecorder()
	inspect.Metrics(db).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	problems, err := promlint.New(w.Body).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	problems, err = testutil.CollectAndLint(recipes.Collector{DB: db, Name: "a"})
	require.NoError(t, err)
	require.Empty(t, problems)
	problems, err = promlint.New(strings.NewReader("# TYPE bad_counter counter\nbad_counter 1\n")).Lint()
	require.NoError(t, err)
	require.NotEmpty(t, problems, "the linter can find something")
}

// TestParse has the parser of Prometheus read every value back.
func TestParse(t *testing.T) {
	db := open(t.TempDir())
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	w := httptest.NewRecorder()
	inspect.Metrics(db).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	require.NoError(t, err)
	s := db.Stats()
	require.Equal(t, float64(s.Sets), families["keepcache_sets_total"].Metric[0].Counter.GetValue())
	require.Equal(t, float64(s.Misses), families["keepcache_misses_total"].Metric[0].Counter.GetValue())
	require.Equal(t, s.Reads.Count(), families["keepcache_read_duration_seconds"].Metric[0].Histogram.GetSampleCount())
	require.Len(t, families["keepcache_bucket_entries"].Metric, 2)
	require.Equal(t, `"quo\"te\\\n\xff"`, families["keepcache_bucket_entries"].Metric[1].Label[0].GetValue())
}
