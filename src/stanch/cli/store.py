"""`stanch store init`: make the tables of a ClickHouse cluster.

Exit codes: 0 done, 2 wrong use or the cluster cannot be used.
"""

import argparse

from stanch.cli.errors import CliError


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "store",
        help="prepare a ClickHouse cluster for a server",
        description="A server keeps its data in its data directory, where it makes the tables "
        "itself. For `stanch server --store http://...` they are made once by this command.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    init = actions.add_parser(
        "init",
        help="make the tables; to run it again changes nothing",
        description="Make the database `stanch` with sharded and replicated tables. The user needs "
        "the rights to create databases and tables; servers need only to insert and select.",
    )
    init.add_argument(
        "--store",
        metavar="URL",
        help="http[s]://[USER@]HOST:PORT of any node, or of all with --without-keeper, separated "
        "by commas; the password is taken from STANCH_STORE_PASSWORD",
    )
    init.add_argument(
        "--cluster", metavar="NAME", required=True, help="its name in system.clusters"
    )
    init.add_argument(
        "--without-keeper",
        action="store_true",
        help="shards without replicas, each node told by itself",
    )
    init.add_argument("--print", action="store_true", help="only print the statements")
    init.set_defaults(run=_init)


def _init(arguments: argparse.Namespace) -> int:
    try:
        from stanch.store.engine import init_cluster
        from stanch.store.errors import StoreError
        from stanch.store.schema import TABLES, Cluster, ddl
    except ImportError as error:
        raise CliError(
            f"store needs the package {error.name}; pip install 'stanch[server]'", 2
        ) from error
    cluster = Cluster(arguments.cluster, replicated=not arguments.without_keeper)
    if arguments.print:
        print(";\n\n".join(ddl(cluster)) + ";")
        return 0
    if not arguments.store:
        raise CliError("--store is missing; it says where the cluster is (or use --print)", 2)
    try:
        init_cluster(arguments.store, cluster)
    except StoreError as error:
        raise CliError(f"{error}", 2) from error
    print(f"The {len(TABLES)} tables of stanch are in the cluster {cluster.name}.")
    return 0
