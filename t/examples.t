#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# What the documentation shows is accepted by nginx -t: every file of
# conf/examples, and every block of README.md and docs/ that is marked as
# "nginx".  A block that is no whole configuration is completed: statements go
# to the context they belong to, names of providers and models that a block
# does not define are defined.  Links between the pages are checked as well.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Basename qw(dirname);
use File::Find ();
use Test::More;

use AI::Cert;
use AI::Gateway;

my $top = $AI::Gateway::top;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $gw = AI::Gateway->new(files => {
    secret => "sk-test-0123456789abcdef0123456789abcdef\n", htpasswd => '',
    'keys.json' => '[]', 'jwks.json' => '{"keys":[]}'
});
my $dir = $gw->dir;

my $cert = AI::Cert->new(dir => $dir);
my ($crt, $key) = $cert->leaf([ 'localhost' ]);

# where a statement belongs, when it is not in http {}

my %main = map { $_ => 1 } qw(
    daemon env error_log events include load_module master_process pid user
    worker_processes worker_rlimit_nofile worker_shutdown_timeout http
);

my %server = map { $_ => 1 } qw(listen location server_name);

my %location = map { $_ => 1 } qw(
    ai_auth ai_deny ai_pass ai_require auth_basic auth_request
);

my %provider = map { $_ => 1 } qw(
    abort client_key dialect endpoint header key max_concurrent max_output
    region text timeout tls_ca tls_name tls_verify
);

my %model = map { $_ => 1 } qw(
    breaker fallback hedge params price recover retry target
);


for my $file (sort glob "$top/conf/examples/*.conf") {
    my $text = slurp($file);
    my ($name) = $file =~ m{([^/]+)$};

    my ($rc, $out) = check(local_paths($text), $text);
    is($rc, 0, "conf/examples/$name") or diag($out);
}

my @pages = ("$top/README.md");

File::Find::find({
    no_chdir => 1,
    wanted => sub { push @pages, $_ if /\.md$/ && -f }
}, "$top/docs");

my $blocks = 0;

for my $file (sort @pages) {
    my $page = substr($file, length("$top/"));
    my $text = slurp($file);

    while ($text =~ /^```nginx\n(.*?)^```$/msg) {
        my $block = $1;
        my $line = 1 + (substr($text, 0, $-[1]) =~ tr/\n//);

        my ($rc, $out) = check_block($block);
        is($rc, 0, "$page:$line") or diag($out);
        $blocks++;
    }

    my @fences = $text =~ /^```/mg;
    is(@fences % 2, 0, "$page: blocks are closed");

    is_deeply([ dead_links($file, $text) ], [], "$page: links");
}

cmp_ok($blocks, '>', 20, 'blocks were found');


# every directive and variable has its place in the documentation

my $index = slurp("$top/docs/README.md");
my $variables = slurp("$top/docs/variables.md");

for my $source (sort glob "$top/modules/*/*.c") {
    my $text = slurp($source);

    while ($text =~ /\{ ngx_string\("(ai_\w+)"\),\s+(NGX_HTTP_\w+_CONF|NULL)/g)
    {
        if ($2 eq 'NULL') {
            like($variables, qr/`\$$1`/, "\$$1 is described");
            next;
        }

        ok(-f "$top/docs/directives/$1.md", "$1 has a page");
        like($index, qr/directives\/$1\.md/, "$1 is in the index");
    }

    for my $list ([ 'ngx_http_ai_provider_subs', 'ai_provider' ],
                  [ 'ngx_http_ai_model_subs', 'ai_model' ])
    {
        my ($subs) = $text =~ /$list->[0]\[\] = \{(.*?)^\};/ms or next;
        my $page = slurp("$top/docs/directives/$list->[1].md");

        like($page, qr/^## $_$/m, "$_ of $list->[1] is described")
            for $subs =~ /ngx_string\("(\w+)"\)/g;
    }
}

done_testing();


sub slurp {
    my ($file) = @_;

    open my $f, '<', $file or die "$file: $!";
    local $/;

    return scalar <$f>;
}

# the test's own files and ports for those of an example

sub local_paths {
    my ($text) = @_;

    $text =~ s{^\s*load_module\s[^;]*;}{}mg;
    $text =~ s{^\s*include\s+\S*modules\S*\.conf;}{}mg;
    $text =~ s{^\s*(?:user|pid|error_log|worker_processes)\s[^;]*;}{}mg;
    $text =~ s{(\bjwks\s+file:)/[^\s;]+}{$1$dir/jwks.json}g;
    $text =~ s{(?<!jwks )(?<!jwks  )\bfile:/(?!\Q$dir\E)[^\s;]+}
              {file:$dir/secret}g;
    $text =~ s{(\bai_data\s+)/[^\s;]+}{$1$dir}g;
    $text =~ s{(\btls_ca\s+)[^\s;]+}{$1$cert->{ca}}g;
    $text =~ s{(\bssl_certificate\s+)[^\s;]+}{$1$crt}g;
    $text =~ s{(\bssl_client_certificate\s+)[^\s;]+}{$1$cert->{ca}}g;
    $text =~ s{(\bssl_certificate_key\s+)[^\s;]+}{$1$key}g;
    $text =~ s{(\bauth_basic_user_file\s+)[^\s;]+}{$1$dir/htpasswd}g;
    $text =~ s{(\bsnapshot=)/[^\s;]+/}{$1$dir/}g;
    $text =~ s{(\bdisk=)/[^\s;:]+:}{$1$dir/cache:}g;
    $text =~ s{(\baccess_log\s+)/[^\s;]+}{$1$dir/access.log}g;
    $text =~ s{(\bai_log\s+)/(?:[^\s;/]+/)*}{$1$dir/}g;

    # each its own port: what two servers share must be declared alike
    my $n = 0;
    $text =~ s{\blisten\s+[^;]*?(\sssl)?;}
              {"listen 127.0.0.1:%%PORT_" . $n++ . '%%' . ($1 // '') . ';'}ge;

    return $text;
}

sub check {
    my ($conf, $source) = @_;

    local $gw->{env} = { map { $_ => 'sk-test' } $source =~ /\benv:(\w+)/g };

    $gw->write_conf($conf);
    unlink "$dir/conf_test.out";
    my ($rc, $out) = $gw->conf_test;

    # a machine without network does not know the providers
    $out =~ s/^.*\[warn\].*host not found in endpoint.*\n//mg;

    $rc = 'warning' if $rc == 0 && $out =~ /\[(?:warn|alert)\]/;

    return ($rc, $out);
}

sub check_block {
    my ($block) = @_;
    my %part = map { $_ => '' } qw(main http server location provider model);
    my ($rc, $out);
    my $more = '';

    my $text = local_paths($block);

    if ($text =~ /^http\s*\{/m) {
        return check($text, $block);
    }

    for my $statement (statements($text)) {
        my ($name) = $statement =~ /^\s*(\S+?)[\s;{]/;
        $name = '' if !defined $name;

        my $where = $main{$name} ? 'main'
                    : $server{$name} ? 'server'
                    : $location{$name} ? 'location'
                    : $provider{$name} ? 'provider'
                    : $model{$name} ? 'model'
                    : 'http';

        $part{$where} .= "$statement\n";
    }

    if ($part{provider} ne '') {
        my $p = $part{provider};
        $p .= 'dialect openai; ' if $p !~ /\bdialect\s/;
        $p .= 'endpoint http://127.0.0.1:1; '
            if $p !~ /\bendpoint\s/ && $p !~ /\btext\s/;
        $p .= 'key none; ' if $p !~ /\bkey\s/ && $p !~ /\btext\s/;
        $part{http} .= "ai_provider block { $p }\n";
    }

    if ($part{model} ne '') {
        my $m = $part{model};
        $m = "target other/x; $m" if $m !~ /^\s*target\s/m;
        $part{http} .= "ai_model block { $m }\n";
    }

    $part{server} .= "location /block { $part{location} }\n"
        if $part{location} ne '';

    $part{http} .= "server { listen 127.0.0.1:%%PORT_block%%; $part{server} }\n"
        if $part{server} ne '';

    $part{main} .= "events {}\n" if $part{main} !~ /\bevents\b/;

    # names that the page has defined elsewhere

    for (1 .. 32) {
        ($rc, $out) = check("$part{main}\nhttp {\n$more$part{http}\n}\n",
                            $block);

        if ($out =~ /\[emerg\].*no provider "([^"]+)"/) {
            $more .= "ai_provider $1 { dialect openai; key none; "
                     . "endpoint http://127.0.0.1:1; }\n";

        } elsif ($out =~ /\[emerg\].*alias ".*": no model "([^"]+)"/) {
            $more .= "ai_model $1 { target other/x; }\n";

        } elsif ($out =~ /\[emerg\].*no "ai_jwt_issuer ([^"]+)"/) {
            $more .= "ai_jwt_issuer $1 { issuer https://$1.example; alg HS256;"
                     . " secret file:$dir/secret; audience ai; }\n";

        } else {
            last;
        }
    }

    return ($rc, $out);
}

# a text cut into statements: up to ";", or to the end of a block

sub statements {
    my ($text) = @_;
    my @all;
    my $current = '';
    my $level = 0;

    while ($text =~ /\G(#[^\n]*|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\\.|.)/sg)
    {
        my $token = $1;

        next if $token =~ /^#/ && $current =~ /(?:^|\s)$/;

        $current .= $token;

        $level++ if $token eq '{';
        $level-- if $token eq '}';

        if ($level == 0 && ($token eq ';' || $token eq '}')) {
            push @all, $current;
            $current = '';
        }
    }

    push @all, $current if $current =~ /\S/;

    return @all;
}

# links to files and headings that do not exist

sub dead_links {
    my ($file, $text) = @_;
    my @dead;

    $text =~ s/^```.*?^```$//msg;

    while ($text =~ /\]\(([^)\s]+)\)/g) {
        my $link = $1;

        next if $link =~ /^\w+:/;

        my ($path, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
        my $target = $path eq '' ? $file : dirname($file) . "/$path";

        if (!-e $target) {
            push @dead, $link;
            next;
        }

        next if !defined $anchor;

        # headings as GitHub names them
        my %names = map { s/[^\w\- ]//gr =~ tr/ /-/r => 1 }
                    map { lc } slurp($target) =~ /^#+ (.*)$/mg;

        push @dead, $link if !$names{$anchor};
    }

    return @dead;
}
