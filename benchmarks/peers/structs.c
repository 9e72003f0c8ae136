/* A linked list of C structs that malloc gave, as native code leaks it. */
#include <stdlib.h>

struct node {
    struct node *next;
    char payload[56];
};

static struct node *head;

/* Adds `count` nodes of 64 bytes; returns how many malloc gave. */
long keep_structs(long count)
{
    for (long made = 0; made < count; made++) {
        struct node *node = malloc(sizeof *node);
        if (node == NULL)
            return made;
        node->next = head;
        node->payload[0] = 1;
        head = node;
    }
    return count;
}

void drop_structs(void)
{
    while (head != NULL) {
        struct node *next = head->next;
        free(head);
        head = next;
    }
}
