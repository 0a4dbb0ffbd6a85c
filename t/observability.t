#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The files in conf/ for Prometheus, Grafana, shippers and collectors: they are
# well-formed, name nothing that is not there, and a real Prometheus answers
# their queries with the figures of a scripted load.  prometheus, promtool and
# python3 with yaml are looked for; what needs them is skipped without.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp ();
use JSON::PP;
use POSIX ();
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Client;
use AI::Gateway;
use AI::Keys;
use AI::Port;

my $top = $AI::Gateway::top;
my $conf = "$top/conf";
my $running;
my $tmp = File::Temp->newdir('ai-test-XXXXXX', TMPDIR => 1);


# names of metrics, as the modules write them

my %emitted = (up => 1);

for my $file (glob "$top/modules/*/*.c") {
    my $text = slurp($file);

    # counters and histograms of the table of families
    while ($text =~ /ngx_http_ai_(plain|by|times)\("(nginx_ai_\w+)"/g) {
        $emitted{$_} = 1 for $1 eq 'times'
                             ? map { "$2_$_" } qw(bucket sum count)
                             : "$2_total";
    }

    # those of the modules: the type, and then the name
    while ($text =~ /SAMPLES_(COUNTER|GAUGE|INFO),\s+"(nginx_ai_\w+)"/g) {
        $emitted{$1 eq 'COUNTER' ? "$2_total" : $2} = 1;
    }

    # gauges of a table that names no type
    while ($text =~ /\{ "(nginx_ai_\w+)",/g) {
        $emitted{$1} = 1;
    }
}

cmp_ok(scalar keys %emitted, '>', 60, 'metrics are found in the sources');

# names of metrics in an expression, without what recording rules make

sub metrics {
    my ($expr) = @_;
    return grep { !/::|:/ } $expr =~ /(?<![\w:"])(nginx_ai_\w+|up)(?![\w:(])/g;
}


# the dashboard

my $dashboard = decode_json(slurp("$conf/grafana/nginx-ai.json"));
my (%ids, %cells, @queries);

is($dashboard->{uid}, 'nginx-ai', 'dashboard');
is_deeply([ map { $_->{name} } @{ $dashboard->{templating}{list} } ],
          [ qw(datasource job instance model) ], '... its variables');

for my $v (@{ $dashboard->{templating}{list} }) {
    next if $v->{type} ne 'query';
    push @queries, [ "variable $v->{name}",
                     $v->{query}{query} =~ s/^label_values\((.*), \w+\)$/$1/r ];
}

for my $panel (@{ $dashboard->{panels} }) {
    my $title = $panel->{title};
    my $g = $panel->{gridPos};

    ok(!$ids{ $panel->{id} }++, "panel \"$title\": id");

    for my $x ($g->{x} .. $g->{x} + $g->{w} - 1) {
        for my $y ($g->{y} .. $g->{y} + $g->{h} - 1) {
            $cells{"$x $y"}++;
        }
    }

    cmp_ok($g->{x} + $g->{w}, '<=', 24, '... within the grid');

    next if $panel->{type} eq 'row';

    ok(@{ $panel->{targets} } > 0, '... has a query');

    for my $t (@{ $panel->{targets} }) {
        is($t->{datasource}{uid}, '${datasource}', '... of the data source');
        push @queries, [ "panel \"$title\"", $t->{expr} ];
    }
}

is_deeply([ grep { $cells{$_} > 1 } sort keys %cells ], [],
          'no panel covers another');

for my $q (@queries) {
    my @unknown = grep { !$emitted{$_} } metrics($q->[1]);

    is_deeply(\@unknown, [], "$q->[0]: metrics exist");
    isnt(scalar metrics($q->[1]), 0, '... and there is one');
}


# rules

my $rules = slurp("$conf/prometheus/rules.yml");
my $tests = slurp("$conf/prometheus/rules.test.yml");
my $recipes = slurp("$top/docs/recipes-observability.md");

my %recorded = map { $_ => 1 } $rules =~ /record: (\S+)/g;
my @alerts = $rules =~ /alert: (\w+)/g;

is_deeply([ grep { !$emitted{$_} } metrics($rules =~ s/^\s*#.*$//mgr
                                           =~ s/^\s*(?:summary|description):
                                                (?:\ >-\n(?:\s{12}.*\n?)+|.*)
                                               //mgxr) ],
          [], 'rules: metrics exist');
is_deeply([ grep { !$recorded{$_} } $rules =~ /\b(job\w*:\w+:\w+)/g ], [],
          '... and what is recorded');

for my $name (@alerts) {
    ok($tests =~ /alertname: $name\b/, "$name is tested");
    like($recipes, qr/^\| `$name` \|/m, '... and described');
}

ok($tests =~ /expr: (?:round\()?\Q$_\E/, "$_ is tested")
    for sort keys %recorded;

SKIP: {
    my $promtool = find_program('promtool')
        or skip 'no promtool in PATH', 1;

    for my $args ('check rules rules.yml', 'test rules rules.test.yml',
                  'check config scrape.yml')
    {
        my $out = `cd $conf/prometheus && $promtool $args 2>&1`;
        is($?, 0, "promtool $args") or diag($out);
    }
}


# the table of BigQuery is that of the usage log

SKIP: {
    skip 'no docs/log.md', 1 if !-f "$top/docs/log.md";

    my $page = slurp("$top/docs/log.md");
    my ($members) = $page =~ /^## Members\n(.*?)^An attempt:/ms;
    my ($attempt) = $page =~ /^An attempt:\n(.*?)^\w/ms;

    my %schema = fields(decode_json(slurp("$conf/bigquery/usage.schema.json")));
    my %of_attempt = fields(delete($schema{attempts})->{fields});

    # those that the page tells in its chapter about contents
    my %content = map { $_ => delete $schema{$_} }
                  qw(prompt answer prompt_sha256 answer_sha256
                     content_truncated);

    is_deeply([ map { $content{$_}{type} } sort keys %content ],
              [ qw(STRING STRING BOOLEAN RECORD STRING) ], 'contents');
    like($page, qr/`$_`/, "... $_") for sort keys %content;

    is_deeply(\%schema, { documented($members) }, 'members of the log');
    is_deeply(\%of_attempt, { documented($attempt) }, '... of attempts');
}


# files of other programs

SKIP: {
    my $python = find_program('python3');

    skip 'no python3 with yaml', 1
        if !$python || system("$python -c 'import yaml' 2>/dev/null") != 0;

    for my $name (qw(s3 bigquery)) {
        my $c = yaml($python, "$conf/vector/$name.yaml");
        my %from = map { $_ => 1 } keys %{ $c->{sources} };

        is_deeply([ grep { !$from{$_} }
                    map { @{ $_->{inputs} } } values %{ $c->{sinks} } ], [],
                  "vector/$name.yaml: inputs");
        is($_->{encoding}{codec}, 'text', '... lines stay as they are')
            for values %{ $c->{sinks} };
        ok($c->{sources}{usage}{include}, '... a file');
    }

    my $c = yaml($python, "$conf/otel-collector/config.yaml");
    my $pipelines = $c->{service}{pipelines};

    for my $name (sort keys %$pipelines) {
        for my $kind (qw(receivers processors exporters)) {
            is_deeply([ grep { !$c->{$kind}{$_} }
                        @{ $pipelines->{$name}{$kind} } ], [],
                      "otel-collector: $kind of $name");
        }

        is($pipelines->{$name}{processors}[0], 'memory_limiter',
           '... its memory is limited first');
    }

    for my $kind (qw(receivers processors exporters)) {
        my %used = map { $_ => 1 } map { @{ $_->{$kind} } } values %$pipelines;
        is_deeply([ grep { !$used{$_} } sort keys %{ $c->{$kind} } ], [],
                  "otel-collector: all $kind are used");
    }
}

my %plugin = (
    SERVICE => [ qw(flush log_level parsers_file storage.path) ],
    PARSER => [ qw(name format time_key time_format time_keep) ],
    tail => [ qw(tag path parser db read_from_head rotate_wait
                 buffer_chunk_size buffer_max_size storage.type) ],
    s3 => [ qw(match region bucket s3_key_format log_key compression
               use_put_object total_file_size upload_timeout store_dir) ],
    bigquery => [ qw(match google_service_credentials project_id dataset_id
                     table_id ignore_unknown_values) ],
);

for my $name (qw(s3 bigquery parsers)) {
    my @sections = fluent("$conf/fluent-bit/$name.conf");
    my %tag;

    ok(@sections > 0, "fluent-bit/$name.conf: sections");

    for my $s (@sections) {
        my $kind = $s->{''} =~ /PUT$/ ? delete $s->{name} : $s->{''};
        my %known = map { $_ => 1 } '', @{ $plugin{$kind} // [] };

        is_deeply([ grep { !$known{$_} } sort keys %$s ], [], "... $kind");

        $tag{ $s->{tag} } = 1 if $s->{tag};
        ok($tag{ $s->{match} }, '... takes what there is') if $s->{match};

        if ($s->{parser}) {
            is_deeply([ map { $_->{name} }
                        fluent("$conf/fluent-bit/parsers.conf") ],
                      [ $s->{parser} ], '... parser');
        }

        if ($s->{parsers_file}) {
            ok(-f "$conf/fluent-bit/$s->{parsers_file}", '... parsers');
        }
    }
}


# a real Prometheus

SKIP: {
    my $missing = AI::Gateway::missing();
    skip $missing, 1 if $missing;

    my $prometheus = find_program('prometheus')
        or skip 'no prometheus in PATH', 1;

    scraped($prometheus);
}

done_testing();


sub scraped {
    my ($prometheus) = @_;

    my $p = provider();
    my $url = $p->url;
    my $dead = AI::Port::free_port();
    my $keys = AI::Keys->new;

    $keys->add('alice', tenant => 'acme');
    $keys->add('bob', tenant => 'globex');

    my %opt = (workers => 2, files => {
        'keys.json' => $keys->text, secret => "sk-test\n"
    });

    my $gw = gateway(<<"END", %opt, server => <<'END2');
    ai_data %%DIR%% interval=100ms;
    ai_metrics_labels tenant=10;
    ai_redis far { server 127.0.0.1:$dead; on_error allow; }

    ai_provider p { dialect openai; endpoint $url; key file:%%DIR%%/secret;
                    max_concurrent 50; }
    ai_provider dead { dialect openai; endpoint http://127.0.0.1:$dead;
                       key none; }

    ai_model good   { target p/usage:100.20; price in=1 out=2; }
    ai_model bad    { target p/status:500; retry off; }
    ai_model second { target dead/x; fallback p/usage:10.5; retry off; }

    ai_limit_zone all zone=all requests=5r/hour;
END
        location /v1/ { ai_pass model; ai_auth key; }
        location /limited/v1/ { ai_pass model; ai_limit all; }
        location = /metrics { ai_metrics; }
END2

    my $c = $gw->client;
    my $path = '/v1/chat/completions';
    my $ask = sub {
        my ($who, $model, $n, %more) = @_;
        $c->post($path, chat($model, %more), headers => $keys->bearer($who))
            for 1 .. $n;
    };

    # its own configuration, faster, with the rules

    my $text = slurp("$conf/prometheus/scrape.yml");

    $text =~ s/127\.0\.0\.1:9145/'127.0.0.1:' . $gw->port/e;
    $text =~ s/_interval: 15s/_interval: 1s/g;
    spit("$tmp/scrape.yml", $text);
    spit("$tmp/rules.yml", $rules =~ s/interval: 30s/interval: 1s/r);

    my $port = run_prometheus($prometheus);
    my $api = AI::Client->new(port => $port);

    ok($gw->wait_for(sub { eval { $api->get('/-/ready')->{status} == 200 } },
                     60), 'Prometheus runs')
        or do { diag(slurp("$tmp/prometheus.log")); return };

    my $value = sub {
        my ($expr) = @_;
        my @v = answers($api, $expr);
        return @v == 1 ? $v[0][1] + 0 : undef;
    };

    # what it knows at two times is the load between them

    my $total = 'sum(nginx_ai_requests_total)';

    $ask->('alice', $_, 1) for qw(good bad second);
    $ask->('bob', 'good', 1, stream => 1);
    $c->post("/limited$path", chat('good')) for 1 .. 6;

    my $count = 10;
    my $scraped = sub {
        my ($n) = @_;
        return $gw->wait_for(sub { ($value->($total) // -1) == $n }, 60);
    };

    ok($scraped->($count), 'the first requests are there');
    sleep 3;

    for my $round (1 .. 4) {
        $ask->('alice', 'good', 4);
        $ask->('bob', 'good', 2, stream => 1);
        $ask->('alice', 'bad', 3);
        $ask->('alice', 'second', 1);
        $count += 10;
        ok($scraped->($count), "round $round");
    }

    # a sum of what the provider was asked: not where it is dead

    my @asked = $p->log;

    is($value->('sum(nginx_ai_attempts_total{provider="p"})'), scalar @asked,
       'attempts: as many as the provider has seen');
    is($value->('sum(nginx_ai_tokens_total{type="input"})'),
       100 * (grep { $_->{body} =~ /usage:100/ } @asked)
       + 10 * (grep { $_->{body} =~ /usage:10\./ } @asked),
       'tokens: as many as it has counted');

    my $good = grep { $_->{body} =~ /usage:100/ } @asked;

    cmp_ok(abs($value->('sum(nginx_ai_cost_dollars_total)') - $good * 140e-6),
           '<', 1e-9, 'cost');
    is($value->('sum(nginx_ai_tenant_tokens_total{tenant="globex",'
                . 'type="output"})'), 9 * 20, 'tokens of a tenant');

    # each query of the dashboard, and some of their figures

    my %panel;

    for my $q (@queries) {
        my $expr = $q->[1];

        $expr =~ s/\$__rate_interval/1m/g;
        $expr =~ s/\$(?:job|instance|model)/.*/g;

        my @v = answers($api, $expr);

        ok(defined $v[0] || !@v, "$q->[0]: is answered");
        push @{ $panel{ $q->[0] =~ s/^panel "(.*)"$/$1/r } }, @v;
    }

    my $one = sub {
        my ($title, %labels) = @_;
        my ($v) = grep { my $l = $_->[0];
                         !grep { ($l->{$_} // '') ne $labels{$_} }
                              keys %labels } @{ $panel{$title} };
        return $v ? $v->[1] + 0 : -1;
    };

    # rates of one minute see all but the first of each
    like($one->('Failed'), qr/^0\.3/, 'a third has failed');
    is($one->('Failed, by model', model => 'bad'), 1, 'all of bad');
    is($one->('Failed, by model', model => 'good'), 0, 'none of good');
    cmp_ok($one->('Requests/s'), '>', 0.2, 'requests per second');
    cmp_ok($one->('First token, p95'), '>', 0, 'first token');
    is($one->('Running'), 0, 'none runs');
    is($one->('Workers', state => 'active'), 2, 'workers');
    is($one->('Redis', redis => 'far'), 0, 'Redis is down');
    is($one->('Live data', dataset => 'keys'), 0, 'live data');
    is($one->('Breakers', target => 'dead/x'), 0, 'a breaker')
        or diag(explain($panel{Breakers}));
    cmp_ok(abs($one->('Tokens/s by type', type => 'input')
               / $one->('Tokens/s by type', type => 'output') - 5), '<', 0.5,
           'tokens by type');
    cmp_ok($one->('Cost per hour'), '>', 0, 'cost per hour');
    cmp_ok($one->('Cost per hour, top tenants', tenant => 'acme'), '>', 0,
           '... of a tenant');
    cmp_ok($one->('Failed attempts by reason', reason => 'connect'), '>', 0,
           'failed attempts');
    is($one->('Keys that rest', provider => 'p'), 0, 'no key rests');
    is($one->('Attempts that run, of max_concurrent', provider => 'p'), 0,
       'attempts that run');

    # what the dashboard shows is there in this load, but for these

    my %elsewhere = map { $_ => 1 } (
        'Hits', 'Requests by what the cache had', 'Cache hits',
        'Expired reservations, thresholds passed', 'Without a price',
        'Refused for a credential or a permission'
    );

    for my $title (sort keys %panel) {
        isnt(scalar @{ $panel{$title} }, 0, "$title: has a figure")
            if !$elsewhere{$title};
    }

    # recorded, and an alert that waits for its time

    like($value->('job_model:nginx_ai_requests_failed:ratio_rate5m'
                  . '{model="bad"}'), qr/^1$/, 'rules: recorded');
    is($value->('count(ALERTS{alertname="NginxAiErrorRate",model="bad",'
                . 'alertstate="pending"})'), 1, '... an alert is pending');
    is($value->('count(ALERTS{alertname="NginxAiRedisDown"})'), 1,
       '... Redis is down');
    is($value->('count(ALERTS{alertname="NginxAiDown"})') // 0, 0,
       '... the gateway is not');

    my @bad = grep { $_->{health} ne 'ok' }
              map { @{ $_->{rules} } }
              @{ api($api, '/api/v1/rules')->{groups} };
    is_deeply([ map { "$_->{name}: $_->{lastError}" } @bad ], [],
              'all rules are evaluated');
}

sub run_prometheus {
    my ($program) = @_;
    my $port = AI::Port::free_port();

    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        open STDOUT, '>', "$tmp/prometheus.log" or POSIX::_exit(1);
        open STDERR, '>&', \*STDOUT or POSIX::_exit(1);

        exec $program, "--config.file=$tmp/scrape.yml",
             "--storage.tsdb.path=$tmp/tsdb",
             "--web.listen-address=127.0.0.1:$port"
            or POSIX::_exit(1);
    }

    $running = $pid;

    return $port;
}

END {
    if ($running) {
        my $status = $?;
        kill 'KILL', $running;
        waitpid $running, 0;
        $? = $status;
    }
}

sub api {
    my ($api, $path) = @_;
    my $json = eval { decode_json($api->get($path)->{body}) };

    return undef if ref $json ne 'HASH' || $json->{status} ne 'success';
    return $json->{data};
}

# a list of [ labels, value ]; of undef when the query is wrong

sub answers {
    my ($api, $expr) = @_;

    $expr =~ s/([^A-Za-z0-9_.~-])/sprintf '%%%02X', ord $1/ge;

    my $data = api($api, "/api/v1/query?query=$expr") // return undef;

    return map { [ $_->{metric}, $_->{value}[1] ] } @{ $data->{result} };
}

sub slurp {
    my ($file) = @_;

    open my $f, '<', $file or die "$file: $!";
    local $/;

    return scalar <$f>;
}

sub spit {
    my ($file, $text) = @_;

    open my $f, '>', $file or die "$file: $!";
    print $f $text;
    close $f or die "$file: $!";
}

sub find_program {
    my ($name) = @_;

    for (split /:/, $ENV{PATH}) {
        return "$_/$name" if -x "$_/$name";
    }

    return;
}

sub yaml {
    my ($python, $file) = @_;

    return decode_json(`$python -c 'import json, sys, yaml
print(json.dumps(yaml.safe_load(open(sys.argv[1]))))' $file`);
}

# sections of a file of Fluent Bit: members in lower case, '' is the name

sub fluent {
    my ($file) = @_;
    my @sections;

    for (split /\n/, slurp($file)) {
        next if /^\s*(?:#.*)?$/;

        if (/^\[(\w+)\]$/) {
            push @sections, { '' => $1 };

        } elsif (/^ {4}(\S+)\s+(\S.*)$/ && @sections) {
            $sections[-1]{lc $1} = $2;

        } else {
            push @sections, { '' => "line: $_" };
        }
    }

    return @sections;
}

# type and mode of each field, by name

sub fields {
    my ($list) = @_;
    return map { my %f = %$_; (delete $f{name} => \%f) } @$list;
}

# the same of a table of members of the usage log

sub documented {
    my ($text) = @_;
    my %type = (string => 'STRING', integer => 'INTEGER', number => 'NUMERIC',
                boolean => 'BOOLEAN');
    my %own = (time => 'TIMESTAMP', token_ms => 'FLOAT');
    my %f;

    while ($text =~ /^\| (`[^|]*?)( \*)? \| ([\w ]+) \|/mg) {
        my ($names, $always, $type) = ($1, $2, $3);

        for my $name ($names =~ /`(\w+)`/g) {
            next if !$type{$type};
            $f{$name} = {
                type => $own{$name} // $type{$type},
                mode => $always ? 'REQUIRED' : 'NULLABLE'
            };
        }
    }

    return %f;
}
